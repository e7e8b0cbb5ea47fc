"""Positions of the faces of the real heads, noted from renders and sagittal slices."""

from tests.support.measure.skin import Window

HEADS = {
    "visible_human_female": Window(
        right_x=195.0, left_x=305.0, chin_z=1522.0, brow_z=1645.0, nose_y=132.0
    ),
    "stanford_cthead": Window(right_x=-74.0, left_x=35.0, chin_z=25.0, brow_z=156.0, nose_y=-119.0),
    "vtk_headsq": Window(right_x=-58.0, left_x=57.0, chin_z=4.0, brow_z=133.0, nose_y=-83.0),
    # the field of view ends at the bridge of the nose: the lower border lies below everything that
    # is in view
    "dcm_qa_ct_ge": Window(right_x=-68.0, left_x=48.0, chin_z=-25.0, brow_z=34.0, nose_y=-100.0),
}
