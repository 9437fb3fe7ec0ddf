-- What lies in the directories %(directories)s, with sizes.
select d.path || '/' || f.name, (pg_catalog.pg_stat_file(d.path || '/' || f.name, true)).size
  from pg_catalog.unnest(%(directories)s::text[]) as d (path),
       pg_catalog.pg_ls_dir(d.path, true, false) as f (name)
 where f.name ~ '^[0-9]+(_(fsm|vm|init))?([.][0-9]+)?$'
   and not (pg_catalog.pg_stat_file(d.path || '/' || f.name, true)).isdir
