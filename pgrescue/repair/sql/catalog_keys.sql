-- The keys of the system catalogs, those of pg_class first, since everything else is found through it.
select c.relname::text,
       (select pg_catalog.array_agg(a.attname::text order by k.n)
          from pg_catalog.generate_series(0, i.indnatts - 1) as k (n)
          join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k.n]) as columns
  from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where i.indisunique
   and i.indexprs is null
   and i.indpred is null
   and c.oid < 16384
   and c.relkind = 'r'
   and n.nspname = 'pg_catalog'
 order by pg_catalog.array_position(array['pg_class', 'pg_attribute', 'pg_type', 'pg_index'], c.relname::text),
          c.oid, i.indexrelid
