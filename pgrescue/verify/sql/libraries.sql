-- Libraries that functions in C name and that are not here, with the number of these functions and their extensions.
-- Only $libdir and absolute paths: what dynamic_library_path adds is the snapshot's, and not in force.
with c_functions as (
    select p.oid, regexp_replace(p.probin, '^\$libdir/', '') as library
      from pg_proc p
     where p.prolang = 13 and p.probin is not null
), libraries as (
    select library, count(*) as functions, array_agg(oid) as oids from c_functions group by library
), places as (
    select l.*, case when library like '/%' then library else s.setting || '/' || library end as place
      from libraries l, pg_config s
     where s.name = 'PKGLIBDIR'
)
select library,
       functions,
       array(select distinct e.extname::text
               from pg_depend d
               join pg_extension e on e.oid = d.refobjid
              where d.classid = 1255 and d.deptype = 'e' and d.refclassid = 3079 and d.objid = any (oids))
  from places
 where coalesce(pg_stat_file(place, true), pg_stat_file(place || '.so', true), pg_stat_file(place || '.dylib', true),
                pg_stat_file(place || '.dll', true)) is null
 order by 1
