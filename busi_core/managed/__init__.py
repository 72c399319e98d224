"""Data sets of one's own: looked at before anything is trained, accepted by an administrator, never changed after.

zip | folder | corrections --intake--> files --inspection--> InspectionReport --store.accept--> ManagedSet
ManagedSet --as_records, split_sets--> Split
"""
