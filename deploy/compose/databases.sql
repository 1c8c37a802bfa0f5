-- Beside the catalog of the lake, which PostgreSQL's image makes.
CREATE DATABASE dagster;
