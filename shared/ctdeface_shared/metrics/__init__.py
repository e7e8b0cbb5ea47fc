"""Metrics, liveness and readiness of a service.

`dependencies` checks what every service needs, `probe` runs the checks in a thread, `endpoint`
serves the results, and `ports` lists the ports in use.
"""
