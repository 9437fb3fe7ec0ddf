-- The references between catalogs that PostgreSQL itself knows of (since 14), shared ones once in a cluster.
-- `first` is the column that names a row of the referring catalog.
select f.relname, k.fkcols, p.relname, k.pkcols, k.is_array, k.is_opt, a.attname
  from pg_catalog.pg_get_catalog_foreign_keys() k
  join pg_catalog.pg_class f on f.oid = k.fktable::oid
  join pg_catalog.pg_class p on p.oid = k.pktable::oid
  join pg_catalog.pg_attribute a on a.attrelid = f.oid and a.attnum = 1
 where f.relname not in ('pg_depend', 'pg_shdepend')
   -- Until 16 a role that had granted a membership could be dropped, and its OID stayed here.
   and not (f.relname = 'pg_auth_members' and k.fkcols = '{grantor}')
   and (%(has_shared)s or not f.relisshared)
 order by 1, 2
