-- Extensions whose control file is not here.
select e.extname
  from pg_extension e
 where not exists (select from pg_available_extensions a where a.name = e.extname)
 order by 1
