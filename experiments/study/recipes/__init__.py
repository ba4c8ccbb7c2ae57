"""The paper's rows that need large data: Caltech-101, Oxford-IIIT Pets and COCO."""
