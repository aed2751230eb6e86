-- +goose Up
-- People who added themselves before there was a mark for it: no administrator
-- added them, they came from an address, and nobody has taken the mark off since.
INSERT INTO person_groups (person, name)
SELECT DISTINCT e.person, 'signed-up' FROM log_events e JOIN people p ON p.name = e.person
WHERE e.kind = 'person.added' AND e.outcome = 'ok' AND e.address <> '' AND e.line NOT LIKE '%"by":%' AND p.status <> 'removed'
	AND NOT EXISTS (SELECT 1 FROM log_events c WHERE c.person = e.person AND c.kind = 'person.changed' AND c.line LIKE '%signed-up%')
ON CONFLICT DO NOTHING;

-- +goose Down
SELECT 1; -- whose mark is from here cannot be told
