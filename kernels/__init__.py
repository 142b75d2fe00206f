"""Operators with a plain torch reference beside each fast one; they know no feature and no model."""
