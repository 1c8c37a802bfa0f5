"""The HTTP door of the platform: clients' messages become lines of the event log.

Data flow: published Segment and RudderStack SDKs (`/v1/batch` and friends) and native clients (`/v1/events`)
-> native events -> event log. A request is answered only after its lines are durable, so a client that got
no 200 sends again; ingestion drops what arrives twice by its event id. Nothing that parses as JSON is
refused: what makes no sense is logged as it came and becomes a dead letter with its reason.

By itself: `serve(log, settings)` in `server.py`.
"""
