"""What a service tells about itself: metrics for Prometheus, whether it is alive, and whether it is ready.

`section` holds the settings, `surroundings` what every service depends on, `probe` looks at that in
a thread, `endpoint` serves it.
"""
