"""The release of Kubernetes whose API is spoken here."""

MAJOR = "1"
MINOR = "36"
GIT_VERSION = f"v{MAJOR}.{MINOR}.0+podyard-local"
