-- The foreign keys that hold (validated and enforced), each once: those of partitions are part of their parent's.
select f.oid::bigint,
       f.conname,
       cn.nspname,
       c.relname,
       c.relkind = 'p' as is_partitioned,
       pn.nspname,
       p.relname,
       p.relkind = 'p' as parent_is_partitioned,
       f.confmatchtype = 'f' as is_full,
       coalesce((pg_catalog.to_jsonb(f) ->> 'conperiod')::boolean, false) as has_period,
       (select pg_catalog.array_agg(a.attname::text order by k.n)
          from pg_catalog.unnest(f.conkey) with ordinality as k (attnum, n)
          join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum) as columns,
       (select pg_catalog.array_agg(a.attname::text order by k.n)
          from pg_catalog.unnest(f.confkey) with ordinality as k (attnum, n)
          join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum) as parent_columns,
       (select pg_catalog.array_agg(pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname) order by k.n)
          from pg_catalog.unnest(f.conpfeqop) with ordinality as k (oid, n)
          join pg_catalog.pg_operator o on o.oid = k.oid
          join pg_catalog.pg_namespace n on n.oid = o.oprnamespace) as operators
  from pg_catalog.pg_constraint f
  join pg_catalog.pg_class c on c.oid = f.conrelid
  join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
  join pg_catalog.pg_class p on p.oid = f.confrelid
  join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
 where f.contype = 'f'
   and f.convalidated
   and f.conparentid = 0
   and coalesce((pg_catalog.to_jsonb(f) ->> 'conenforced')::boolean, true)
 order by cn.nspname, c.relname, f.conname
