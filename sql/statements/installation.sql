-- Whether this installation belongs to this cluster and database (or is a copy that must not send).
SELECT webhook.is_at_home()
