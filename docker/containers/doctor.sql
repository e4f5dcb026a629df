SELECT 'version', VERSION();
SELECT 'now', UNIX_TIMESTAMP();
SELECT 'read_only', @@read_only;
SELECT 'max_connections', @@max_connections;
SELECT 'connections', COUNT(*) FROM information_schema.processlist;
SELECT 'upgraded', table_name FROM information_schema.tables WHERE table_schema = 'soc' AND table_name LIKE 'soc\_migration%';
SELECT 'user', user, REGEXP_SUBSTR(priv, '"x509_subject":"[^"]*"') FROM mysql.global_priv WHERE user LIKE 'soc\_%';
SELECT 'transaction', trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, NOW()), trx_rows_locked, IFNULL(LEFT(trx_query, 80), '')
    FROM information_schema.innodb_trx WHERE trx_started < NOW() - INTERVAL 60 SECOND;
SELECT 'query', id, time, LEFT(info, 80) FROM information_schema.processlist
    WHERE command NOT IN ('Sleep', 'Daemon') AND time > 60 AND user LIKE 'soc\_%';
SELECT 'size', IFNULL(SUM(data_length + index_length), 0) FROM information_schema.tables WHERE table_schema = 'soc';
SELECT 'grant', user, COUNT(*) FROM mysql.tables_priv WHERE db = 'soc' GROUP BY user;
SELECT 'migration', app, name FROM django_migrations;
SELECT 'heartbeat', service, instance, UNIX_TIMESTAMP(seen_at) FROM core_heartbeat;
SELECT 'beat', name, UNIX_TIMESTAMP(ticked_at), lag, IFNULL(UNIX_TIMESTAMP(blocked_since), '') FROM soc_beat_instance WHERE leader;
SELECT 'schedule', name FROM django_celery_beat_periodictask WHERE NOT enabled AND name NOT LIKE 'now: %';
SELECT 'problem', p.name, LEFT(REPLACE(o.problem, '\n', ' '), 150)
    FROM soc_beat_taskoptions o JOIN django_celery_beat_periodictask p ON p.id = o.task_id WHERE o.problem <> '';
SELECT 'relay', IFNULL(UNIX_TIMESTAMP(down_since), ''), LEFT(REPLACE(last_error, '\n', ' '), 150) FROM notify_relay;
SELECT 'mail', state, COUNT(*) FROM notify_outboundmail WHERE created_at > NOW() - INTERVAL 1 DAY GROUP BY state;
SELECT 'subscriptions', COUNT(*) FROM notify_subscription WHERE enabled;
SELECT 'dead', queue, COUNT(*) FROM core_deadtask WHERE state = 'waiting' GROUP BY queue;
SELECT 'failure', task, COUNT(*) FROM core_taskfailure WHERE at > NOW() - INTERVAL 1 HOUR GROUP BY task;
SELECT 'arrived', COUNT(*), UNIX_TIMESTAMP(MIN(received_at)) FROM (SELECT received_at FROM events_event ORDER BY id DESC LIMIT 10000) AS latest;
SELECT 'weight', avg_row_length + ROUND(index_length / GREATEST(table_rows, 1)) FROM information_schema.tables WHERE table_schema = 'soc' AND table_name = 'events_event';
