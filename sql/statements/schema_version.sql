-- The version of the extension's SQL objects.
SELECT webhook.schema_version()
