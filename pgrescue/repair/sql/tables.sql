-- The tables and materialized views of users that lie in a heap, those of extensions included.
select c.oid::bigint,
       n.nspname,
       c.relname,
       c.relkind = 'm' as is_view,
       c.relpersistence = 'u' as is_unlogged,
       c.relispopulated,
       pg_catalog.pg_relation_filepath(c.oid) as path,
       pg_catalog.pg_relation_size(c.oid) as size_bytes,
       pg_catalog.pg_indexes_size(c.oid) as indexes_bytes,
       t.oid::bigint as toast,
       coalesce(pg_catalog.pg_relation_size(t.oid), 0) as toast_bytes
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_am a on a.oid = c.relam
  left join pg_catalog.pg_class t on t.oid = c.reltoastrelid
 where c.relkind in ('r', 'm')
   and c.relpersistence in ('p', 'u')
   and a.amname = 'heap'
   and c.oid >= 16384
   and n.nspname not in ('pg_catalog', 'pg_toast', 'pgrescue_tools')
   and n.nspname !~ '^pg_temp_'
   and n.nspname !~ '^pgrescue_quarantine(_\d+)?$'
 order by c.oid
