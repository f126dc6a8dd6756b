-- Seals secrets with the first key of the key file.
SELECT webhook.reseal()
