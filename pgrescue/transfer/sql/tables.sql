-- Partitions by the hash of an enum are others in every cluster, since that hash is of an oid: their root stands for the
-- whole tree, as for pg_dump (pg_dump.c, getPartitioningInfo). `leaves` are the partitions that a root stands for.
--
-- Tables that hold rows of users, with the columns that are stored; of extensions only the tables that these declare
-- as the user's (pg_extension_config_dump), with the condition under which a row is.
with tree (root) as (
    select distinct pg_catalog.pg_partition_root(p.partrelid)::pg_catalog.oid
      from pg_catalog.pg_partitioned_table as p
     where p.partstrat = 'h' and exists (
           select from pg_catalog.pg_opclass as o
            where o.oid = any (p.partclass) and o.opcname = 'enum_ops'
              and o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace)
)
select c.oid::bigint,
       n.nspname,
       c.relname,
       coalesce(l.size, pg_catalog.pg_table_size(c.oid)),
       e.condition,
       c.relrowsecurity and c.relforcerowsecurity,
       coalesce(a.names, '{}'),
       coalesce(a.is_plain, true),
       coalesce(l.largest, pg_catalog.pg_relation_size(c.oid)) / pg_catalog.current_setting('block_size')::bigint,
       am.amname,
       coalesce(l.names, '{}')
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  left join pg_catalog.pg_am as am on am.oid = c.relam
  left join tree on tree.root = c.oid
  left join lateral (
       select sum(pg_catalog.pg_table_size(t.relid))::bigint as size, max(pg_catalog.pg_relation_size(t.relid)) as largest,
              array_agg(pn.nspname || '.' || pc.relname) as names
         from pg_catalog.pg_partition_tree(c.oid) as t
         join pg_catalog.pg_class as pc on pc.oid = t.relid
         join pg_catalog.pg_namespace as pn on pn.oid = pc.relnamespace
        where t.isleaf) as l on tree.root is not null
  left join (select x.config, x.condition
               from pg_catalog.pg_extension, unnest(extconfig, extcondition) as x (config, condition)) as e
         on e.config = c.oid
  left join lateral (
       select array_agg(t.attname::text order by t.attnum) as names,
              -- Binary values of these mean the same in every cluster; arrays and rows of users' types hold their oids.
              bool_and(coalesce(b.oid, y.oid) < 16384 and coalesce(b.typtype, y.typtype) = 'b'
                       and coalesce(b.typname, y.typname) <> all (array[
                           'regclass', 'regcollation', 'regconfig', 'regdictionary', 'regnamespace', 'regoper',
                           'regoperator', 'regproc', 'regprocedure', 'regrole', 'regtype', 'aclitem', '_aclitem',
                           '_regclass', '_regtype', '_regproc', '_regrole', '_regnamespace', 'xml', '_xml',
                           'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'refcursor'])
                       or y.typtype = 'e') as is_plain
         from pg_catalog.pg_attribute as t
         join pg_catalog.pg_type as y on y.oid = t.atttypid
         left join pg_catalog.pg_type as b on b.oid = y.typbasetype
        where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped and t.attgenerated = '') as a on true
 where (c.relkind = 'r' and not (c.relispartition and pg_catalog.pg_partition_root(c.oid) in (select root from tree))
        or tree.root is not null)
   and c.relpersistence <> 't'
   and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   and n.nspname not like 'pgrescue\_%'
   and (e.config is not null
        or not exists (select from pg_catalog.pg_depend as d
                        where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                          and d.deptype = 'e'))
 order by 4 desc, 2, 3
