"""Models that a test hands to a session: written to a folder, known by their hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from device_agents.protocol import Job


@dataclass
class ModelShelf:
    """Model files by their hash, and jobs for them."""

    folder: Path
    models: dict[str, Path] = field(default_factory=dict)

    def job(self, job_id: str, content: bytes | str) -> Job:
        """Store a model's content and return a job for it."""
        data = content.encode() if isinstance(content, str) else content
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{digest[:16]}.model"
        path.write_bytes(data)
        self.models[digest] = path
        return Job(job_id, digest)
