-- The three roles, made once per PostgreSQL server by an administrator. Passwords are set apart:
--   ALTER ROLE understudy_app PASSWORD '…';
-- owner: owns the tables, runs migrations. app: owns nothing, sees the tenant in force. door: reads across tenants
-- where a policy names it (log-in, due-scans, the gateways' snapshot), and writes nothing.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'understudy_owner') THEN
    CREATE ROLE understudy_owner LOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'understudy_app') THEN
    CREATE ROLE understudy_app LOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'understudy_door') THEN
    CREATE ROLE understudy_door LOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
END
$$;
