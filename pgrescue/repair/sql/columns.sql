-- The columns of the tables of users, with the type below a domain: a domain's constraints bind no row set aside.
with recursive base (domain, type, typmod) as (
    select t.oid, t.typbasetype, t.typtypmod from pg_catalog.pg_type t where t.typtype = 'd'
     union all
    select b.domain, t.typbasetype, t.typtypmod
      from base b join pg_catalog.pg_type t on t.oid = b.type
     where t.typtype = 'd'
)
select a.attrelid::bigint,
       a.attname,
       pg_catalog.format_type(coalesce(b.type, a.atttypid), coalesce(b.typmod, a.atttypmod)) as type,
       case when a.attcollation <> 0 then pg_catalog.format('%I.%I', cn.nspname, co.collname) end as collation,
       a.attgenerated <> '' as is_generated,
       a.attlen = -1 and a.attstorage <> 'p' as is_toastable
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_class c on c.oid = a.attrelid
  left join (select b.* from base b join pg_catalog.pg_type t on t.oid = b.type where t.typtype <> 'd') b
    on b.domain = a.atttypid
  left join pg_catalog.pg_collation co on co.oid = a.attcollation
  left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
 where c.relkind in ('r', 'm')
   and c.oid >= 16384
   and a.attnum > 0
   and not a.attisdropped
 order by a.attrelid, a.attnum
