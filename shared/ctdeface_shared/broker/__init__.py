"""The queue between watcher and workers: one protocol, RabbitMQ or a SQLite file behind it."""
