"""Traces of cases from the inbox to the outbox.

The services use the protocols in `spans`. `export` sends spans to an OpenTelemetry collector; it is
the only module that imports OpenTelemetry, and is imported only if the settings name a collector.
"""
