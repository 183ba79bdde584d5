"""What all parts of the local cluster share: objects under versions, how they are read, and how a refusal reads.

Knows no rule about what may be created, no HTTP and no process.
"""
