-- Tables and sequences of users: what a migration may hold, and what it has to leave out.
select c.oid::bigint,
       n.nspname,
       c.relname,
       c.relkind::text,
       (select i.inhparent::bigint from pg_catalog.pg_inherits as i where i.inhrelid = c.oid and c.relispartition),
       c.relkind = 'r' and exists (select from pg_catalog.pg_inherits as i where i.inhparent = c.oid),
       exists (select from pg_catalog.pg_depend as d
                where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e'),
       c.relrowsecurity and c.relforcerowsecurity,
       case when c.reltoastrelid = 0 then 0 else pg_catalog.pg_relation_size(c.reltoastrelid) end,
       coalesce((select pg_catalog.array_agg(a.attname::text)
                   from pg_catalog.pg_attribute as a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and c.relkind <> 'S'), '{}'),
       -- The tables whose columns take numbers from a sequence: as its owners, or by their defaults.
       coalesce((select pg_catalog.array_agg(f.table_oid)
                   from (select d.refobjid::bigint
                           from pg_catalog.pg_depend as d
                          where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0
                            and d.deptype in ('a', 'i')
                          union
                         select a.adrelid::bigint
                           from pg_catalog.pg_depend as d
                           join pg_catalog.pg_attrdef as a on a.oid = d.objid
                          where d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            and d.refobjid = c.oid) as f (table_oid)
                  where c.relkind = 'S'), '{}')
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'f', 'S') and c.relpersistence <> 't'
   and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   and n.nspname not like 'pgrescue\_%'
 order by n.nspname, c.relname
