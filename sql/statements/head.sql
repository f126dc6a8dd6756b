-- How far the head has read.
SELECT p.done::pg_catalog.text, p.upto::pg_catalog.text, p.seq
  FROM webhook.position p
 WHERE p.endpoint_id = 0
