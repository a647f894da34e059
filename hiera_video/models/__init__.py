"""Model families: one file each, one public function per size."""
