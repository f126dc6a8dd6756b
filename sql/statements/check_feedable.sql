-- $1 endpoint, $2 role
SELECT webhook.check_feedable($1, $2)
