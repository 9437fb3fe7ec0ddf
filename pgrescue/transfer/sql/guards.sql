-- Triggers and rules that would act on what a migration does: those that are enabled in an ordinary session (states O
-- and A), on INSERT or TRUNCATE (pg_trigger.h, TRIGGER_TYPE_INSERT and TRIGGER_TYPE_TRUNCATE).
select 'TRIGGER', t.tgrelid::bigint, t.tgname::text, t.tgenabled = 'A', t.tgtype & 32 <> 0
  from pg_catalog.pg_trigger as t
 where not t.tgisinternal and t.tgenabled in ('O', 'A') and t.tgtype & 36 <> 0 and t.tgrelid = any(%(tables)s::oid[])
union all
select 'RULE', r.ev_class::bigint, r.rulename::text, r.ev_enabled = 'A', false
  from pg_catalog.pg_rewrite as r
 where r.ev_type = '3' and r.ev_enabled in ('O', 'A') and r.ev_class = any(%(tables)s::oid[])
 order by 1, 2, 3
