-- How many objects of each kind users made: the same questions to source and target. What belongs to an extension, to
-- pgrescue, or to the system is left out.
with namespace as (
    select oid, nspname from pg_catalog.pg_namespace
     where nspname <> 'information_schema' and nspname !~ '^pg_' and nspname not like 'pgrescue\_%'
),
member as (
    select classid, objid from pg_catalog.pg_depend where deptype = 'e'
),
relation as (
    select c.* from pg_catalog.pg_class as c join namespace as n on n.oid = c.relnamespace
     where c.relpersistence <> 't'
       and not exists (select from member as m
                        where m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and m.objid = c.oid)
)
select kind, count(*)
  from (select case relkind when 'r' then 'tables' when 'p' then 'partitioned tables' when 'v' then 'views'
                            when 'm' then 'materialized views' when 'S' then 'sequences' when 'f' then 'foreign tables'
                            when 'i' then 'indexes' when 'I' then 'partitioned indexes'
                            when 'c' then 'composite types' end as kind
          from relation
         where relkind <> 't'
        union all
        select 'schemas' from namespace where nspname <> 'public'
        union all
        select 'columns' from pg_catalog.pg_attribute as a join relation as c on c.oid = a.attrelid
         where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
        union all
        select 'column defaults' from pg_catalog.pg_attrdef as d join relation as c on c.oid = d.adrelid
        union all
        select case x.contype when 'c' then 'check constraints' when 'f' then 'foreign keys' when 'p' then 'primary keys'
                              when 'u' then 'unique constraints' when 'x' then 'exclusion constraints' end
          from pg_catalog.pg_constraint as x join relation as c on c.oid = x.conrelid
         where x.contype in ('c', 'f', 'p', 'u', 'x')
        union all
        select 'triggers' from pg_catalog.pg_trigger as t join relation as c on c.oid = t.tgrelid
         where not t.tgisinternal
        union all
        select 'policies' from pg_catalog.pg_policy as p join relation as c on c.oid = p.polrelid
        union all
        select 'rules' from pg_catalog.pg_rewrite as r join relation as c on c.oid = r.ev_class
         where r.rulename <> '_RETURN'
        union all
        select 'statistics' from pg_catalog.pg_statistic_ext as s join namespace as n on n.oid = s.stxnamespace
        union all
        select case when t.typtype = 'e' then 'enums' when t.typtype = 'd' then 'domains' else 'ranges' end
          from pg_catalog.pg_type as t join namespace as n on n.oid = t.typnamespace
         where t.typtype in ('e', 'd', 'r') and not exists (
               select from member as m where m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and m.objid = t.oid)
        union all
        select 'routines' from pg_catalog.pg_proc as p join namespace as n on n.oid = p.pronamespace
         where not exists (
               select from pg_catalog.pg_depend as d
                where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid
                  and d.deptype in ('e', 'i'))
        union all
        select 'extensions' from pg_catalog.pg_extension
        union all
        select 'large objects' from pg_catalog.pg_largeobject_metadata) as counted
 group by kind
 order by kind
