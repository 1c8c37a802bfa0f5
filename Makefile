.PHONY: help install test lint format check up

BIN := .venv/bin

help:  ## Show the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

install:  ## Make .venv with everything for development
	python3 -m venv .venv
	$(BIN)/pip install -e '.[test,dev,clients,embeddings,postgres,mysql,s3]'

test:  ## Run the default tests
	$(BIN)/pytest

lint:  ## Check style, import layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

format:  ## Format the code and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check:  ## Run the whole check, as the continuous integration does
	.ci/run

up:  ## Run the platform with demo traffic
	$(BIN)/recsys-data up
