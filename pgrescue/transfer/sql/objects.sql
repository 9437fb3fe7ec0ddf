-- What users made in this database: what came with initdb or belongs to an extension is left out, and so are parts of
-- other objects (row types, arrays, sequences of identity columns) and pgrescue's own schema.
with object (classid, oid, made, namespace) as (
    select 'pg_catalog.pg_namespace'::regclass, oid, xmin, oid from pg_catalog.pg_namespace
     where nspname <> 'public' and nspname !~ '^pg_(temp|toast)'
    union all
    select 'pg_catalog.pg_class'::regclass, oid, xmin, relnamespace from pg_catalog.pg_class
     where relkind in ('r', 'p', 'v', 'm', 'S', 'f') and relpersistence <> 't'
    union all
    select 'pg_catalog.pg_type'::regclass, t.oid, t.xmin, t.typnamespace from pg_catalog.pg_type as t
      left join pg_catalog.pg_class as c on c.oid = t.typrelid
     where coalesce(c.relkind = 'c', true) and t.typtype <> 'm' and t.typrelid is not distinct from coalesce(c.oid, 0)
       and not exists (select from pg_catalog.pg_type as e where e.typarray = t.oid)
    union all
    select 'pg_catalog.pg_proc'::regclass, oid, xmin, pronamespace from pg_catalog.pg_proc
    union all
    select 'pg_catalog.pg_operator'::regclass, oid, xmin, oprnamespace from pg_catalog.pg_operator
    union all
    select 'pg_catalog.pg_opfamily'::regclass, oid, xmin, opfnamespace from pg_catalog.pg_opfamily
    union all
    select 'pg_catalog.pg_opclass'::regclass, oid, xmin, opcnamespace from pg_catalog.pg_opclass
    union all
    select 'pg_catalog.pg_collation'::regclass, oid, xmin, collnamespace from pg_catalog.pg_collation
    union all
    select 'pg_catalog.pg_conversion'::regclass, oid, xmin, connamespace from pg_catalog.pg_conversion
    union all
    select 'pg_catalog.pg_ts_config'::regclass, oid, xmin, cfgnamespace from pg_catalog.pg_ts_config
    union all
    select 'pg_catalog.pg_ts_dict'::regclass, oid, xmin, dictnamespace from pg_catalog.pg_ts_dict
    union all
    select 'pg_catalog.pg_ts_parser'::regclass, oid, xmin, prsnamespace from pg_catalog.pg_ts_parser
    union all
    select 'pg_catalog.pg_ts_template'::regclass, oid, xmin, tmplnamespace from pg_catalog.pg_ts_template
    union all
    select 'pg_catalog.pg_cast'::regclass, oid, xmin, 0 from pg_catalog.pg_cast
    union all
    select 'pg_catalog.pg_transform'::regclass, oid, xmin, 0 from pg_catalog.pg_transform
    union all
    select 'pg_catalog.pg_am'::regclass, oid, xmin, 0 from pg_catalog.pg_am
    union all
    select 'pg_catalog.pg_language'::regclass, oid, xmin, 0 from pg_catalog.pg_language
    union all
    select 'pg_catalog.pg_foreign_data_wrapper'::regclass, oid, xmin, 0 from pg_catalog.pg_foreign_data_wrapper
    union all
    select 'pg_catalog.pg_foreign_server'::regclass, oid, xmin, 0 from pg_catalog.pg_foreign_server
    union all
    select 'pg_catalog.pg_event_trigger'::regclass, oid, xmin, 0 from pg_catalog.pg_event_trigger
    union all
    select 'pg_catalog.pg_publication'::regclass, oid, xmin, 0 from pg_catalog.pg_publication
    union all
    select 'pg_catalog.pg_largeobject'::regclass, oid, xmin, 0 from pg_catalog.pg_largeobject_metadata
    union all
    select 'pg_catalog.pg_extension'::regclass, oid, xmin, 0 from pg_catalog.pg_extension
)
select identified.type, identified.identity, o.made::text::bigint, o.oid::bigint,
       o.classid = 'pg_catalog.pg_namespace'::regclass
       and exists (select from pg_catalog.pg_extension as e where e.extnamespace = o.oid),
       o.classid::oid::bigint
  from object as o
  left join pg_catalog.pg_namespace as n on n.oid = o.namespace,
       lateral pg_catalog.pg_identify_object(o.classid, o.oid, 0) as identified
 -- Below that number lies what came with initdb; a large object may have any.
 where (o.oid >= 16384 or o.classid = 'pg_catalog.pg_largeobject'::regclass)
   and coalesce(n.nspname, '') not in ('pgrescue_transfer', 'information_schema')
   and coalesce(n.nspname, '') !~ '^pg_(temp|toast)'
   and not exists (select from pg_catalog.pg_depend as d
                    where d.classid = o.classid and d.objid = o.oid and d.objsubid = 0
                      and d.deptype in ('e', 'i'))
 order by o.classid, identified.identity
