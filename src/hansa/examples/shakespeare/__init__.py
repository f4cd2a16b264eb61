"""Next-character prediction among the roles of Shakespeare's plays."""
