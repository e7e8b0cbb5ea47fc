"""Jobs of complete cases: publishing, recording, closing."""
