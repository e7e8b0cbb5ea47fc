"""Traces of cases on their way from the inbox to their end, told to an OpenTelemetry collector where one is named.

`spans` is what the services know; `export` is the only module that knows OpenTelemetry, and loads
only when traces are on.
"""
