-- The indexes of the tables of users; read with only pg_catalog in the search path, so that names are whole.
with recursive base (domain, type) as (
    select t.oid, t.typbasetype from pg_catalog.pg_type t where t.typtype = 'd'
     union all
    select b.domain, t.typbasetype from base b join pg_catalog.pg_type t on t.oid = b.type where t.typtype = 'd'
)
select i.indrelid::bigint,
       i.indexrelid::bigint,
       n.nspname,
       x.relname,
       m.amname,
       i.indisunique,
       i.indisprimary,
       i.indisexclusion,
       i.indisvalid,
       i.indimmediate,
       coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) as nulls_not_distinct,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) as predicate,
       i.indexprs is not null as has_expressions,
       pg_catalog.pg_relation_filepath(i.indexrelid) as path,
       pg_catalog.pg_relation_size(i.indexrelid) as size_bytes,
       (select pg_catalog.array_agg(
                   pg_catalog.pg_get_indexdef(i.indexrelid, k.n, true)
                   || coalesce((select pg_catalog.format(' COLLATE %I.%I', cn.nspname, co.collname)
                                  from pg_catalog.pg_collation co
                                  join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
                                 where co.oid = i.indcollation[k.n - 1]), '')
                   order by k.n)
          from pg_catalog.generate_series(1, i.indnkeyatts) as k (n)) as keys,
       (select pg_catalog.array_agg(a.attname::text order by k.n)
          from pg_catalog.generate_series(1, i.indnkeyatts) as k (n)
          join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k.n - 1]
         where i.indkey[k.n - 1] > 0) as columns,
       (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'type', ty.typname, 'schema', tn.nspname, 'oid', ty.oid::bigint, 'kind', ty.typtype,
                   'length', a.attlen, 'align', a.attalign, 'by_value', a.attbyval,
                   'labels', (select pg_catalog.jsonb_object_agg(e.oid::text, e.enumlabel)
                                from pg_catalog.pg_enum e where e.enumtypid = ty.oid)) order by a.attnum)
          from pg_catalog.pg_attribute a
          join pg_catalog.pg_type ty on ty.oid = coalesce(
                   (select b.type from base b join pg_catalog.pg_type u on u.oid = b.type
                     where b.domain = a.atttypid and u.typtype <> 'd'), a.atttypid)
          join pg_catalog.pg_namespace tn on tn.oid = ty.typnamespace
         where a.attrelid = i.indexrelid) as stored,
       (select pg_catalog.bool_and(a.attnotnull)
          from pg_catalog.pg_attribute a
         where a.attrelid = i.indrelid and a.attnum = any (i.indkey)) as is_not_null
  from pg_catalog.pg_index i
  join pg_catalog.pg_class x on x.oid = i.indexrelid
  join pg_catalog.pg_namespace n on n.oid = x.relnamespace
  join pg_catalog.pg_am m on m.oid = x.relam
  join pg_catalog.pg_class c on c.oid = i.indrelid
 where c.relkind in ('r', 'm')
   and c.oid >= 16384
   and x.relkind = 'i'
   and i.indislive
 order by i.indrelid, i.indexrelid
