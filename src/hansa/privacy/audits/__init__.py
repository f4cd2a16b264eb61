"""Attacks that test the privacy promise: an audit can refute a claim, never prove it."""

from hansa.privacy.audits.audit import audit
from hansa.privacy.audits.report import AuditReport

__all__ = ["AuditReport", "audit"]
