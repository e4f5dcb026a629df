#!/bin/sh
# Publishes one event, which is read and then dropped as its source is nobody's: the page "Shippers"
# shows it within seconds. Needs amqp-publish (Debian: amqp-tools).
cd "$(dirname "$0")" && date -u '+{"@timestamp":"%FT%TZ","host":{"name":"@NAME@"},"message":"Self-test of @NAME@","winlog":{"provider_name":"SOC Shipper Test","channel":"Application","record_id":%s,"event_id":1}}' | amqp-publish --server=rabbitmq --port=5671 --ssl --cacert=ca.pem --cert=cert.pem --key=key.pem --username='@USER@' --password="$(cat password)" --exchange='@EXCHANGE@' --routing-key='@NAME@' --content-type=application/json && echo "published: look at the page Shippers"
