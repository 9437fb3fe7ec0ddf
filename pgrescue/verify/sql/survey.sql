-- Every relation with storage of its own, temporary ones aside: those are deleted when a server starts.
-- The path is put together from pg_class, because pg_relation_filepath looks the relation up in an index.
with here as (
    select d.oid as database_oid,
           d.dattablespace,
           'PG_' || pg_catalog.current_setting('server_version_num')::int / 10000
                 || '_' || c.catalog_version_no as version_directory
      from pg_catalog.pg_database d, pg_catalog.pg_control_system() c
     where d.datname = pg_catalog.current_database()
), owners as (
    select reltoastrelid, oid, relname, relnamespace from pg_catalog.pg_class where reltoastrelid <> 0
)
select c.oid::bigint,
       coalesce(n.nspname, c.relnamespace::text),
       c.relname,
       c.relkind::text,
       c.relpersistence::text,
       c.relisshared,
       coalesce(a.amname, ''),
       case coalesce(nullif(c.reltablespace, 0), here.dattablespace)
           when 1664 then 'global/'
           when 1663 then 'base/' || here.database_oid || '/'
           else 'pg_tblspc/' || coalesce(nullif(c.reltablespace, 0), here.dattablespace)
                || '/' || here.version_directory || '/' || here.database_oid || '/'
       end || case when c.relfilenode = 0 then pg_catalog.pg_relation_filenode(c.oid) else c.relfilenode end,
       c.relispopulated,
       coalesce(i.indrelid::bigint, 0),
       coalesce(i.indisunique, false),
       coalesce(i.indisvalid and i.indisready and i.indislive, false),
       coalesce(o.relname, '')
  from pg_catalog.pg_class c
 cross join here
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_am a on a.oid = c.relam
  left join pg_catalog.pg_index i on i.indexrelid = c.oid
  left join owners o on o.reltoastrelid = c.oid
 where c.relkind in ('r', 'i', 'S', 't', 'm')
   and c.relpersistence <> 't'
 order by 2, 3
