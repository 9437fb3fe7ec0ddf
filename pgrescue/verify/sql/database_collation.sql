-- The same for the database's own collation (since 15), which is 100 wherever a column has no other.
select d.datcollversion, pg_database_collation_actual_version(d.oid), i.names
  from pg_database d,
       lateral (select coalesce(array_agg(x.indexrelid::regclass::text order by 1), '{}') as names
                  from pg_index x
                 where 100 = any (x.indcollation::oid[])) i
 where d.datname = current_database()
   and d.datcollversion is not null
   and pg_database_collation_actual_version(d.oid) is not null
   and d.datcollversion is distinct from pg_database_collation_actual_version(d.oid)
