"""Privacy budgets that outlive jobs: blocks, what a release costs them, and the rules of spending.

    block      what one privacy officer allows: (epsilon, delta) for a unit, in micro-RDP
    cost       what an event costs at the block's Renyi order
    touching   which blocks a job draws from, and which jobs may not draw at all
    rules      hold, reserve, commit, refund, settle: pure functions over whole numbers
    book       the rules over many blocks and jobs; each change is an entry of a log
    audit      an exported log, checked without the store

Nothing here knows a database or a network: a coordinator keeps a book, and so can a site.
"""
