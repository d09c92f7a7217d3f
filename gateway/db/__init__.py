"""The metadata database: the only folder that knows SQLAlchemy.  One repository per noun."""
