"""Databases as sources: PostgreSQL by ADBC, others by SQLAlchemy."""
