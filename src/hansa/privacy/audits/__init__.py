"""Attacks that test the privacy promise: an audit can refute a claim, never prove it."""

from hansa.privacy.audit_report import AuditReport
from hansa.privacy.audits.audit import audit

__all__ = ["AuditReport", "audit"]
