"""What one would write by hand instead, as fast as a careful engineer makes it; none knows the service.

Each is run as `python -m benchmarks.rivals.NAME BUCKET INPUT_FOLDER OUTPUT_FOLDER …`.
"""
