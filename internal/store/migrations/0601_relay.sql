-- +goose Up
-- How far each agent was heard: the highest number among its events.
CREATE TABLE relay_agents (
	source TEXT NOT NULL,
	agent  TEXT NOT NULL,
	seq    BIGINT NOT NULL,
	heard  BIGINT NOT NULL,
	PRIMARY KEY (source, agent)
);
