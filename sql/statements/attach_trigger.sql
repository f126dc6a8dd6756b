CREATE OR REPLACE TRIGGER {trigger} AFTER {events} ON {table} FOR EACH {level} {when} EXECUTE FUNCTION webhook.capture()
