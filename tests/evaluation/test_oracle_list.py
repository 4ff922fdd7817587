"""Every oracle of the specification of evaluation has its test, marked `oracle`: `pytest -m oracle` runs them alone.

The keys are the sections that state the values; NOT_BUILT are those of protocols that the suite table does not have.
"""

import ast
from pathlib import Path

from opendino.evaluation.suite import PROTOCOLS

ROOT = Path(__file__).parents[1]
KNN, LOGISTIC, DENSE = "evaluation/test_knn.py", "evaluation/test_logistic.py", "evaluation/test_dense_protocols.py"
HEADS, PUBLISHED = "train/test_head_fitting.py", "evaluation/metrics/test_published_values.py"
MULTILABEL, DEPTH, NAVI = "evaluation/metrics/test_multilabel.py", "evaluation/test_depth.py", "evaluation/test_navi.py"
AP = "evaluation/metrics/test_detection.py"
ACTIONS, MET, INTERVAL = "evaluation/test_actions.py", "evaluation/test_met.py", "evaluation/test_interval.py"

ORACLES = {
    "3.1 votes": (KNN, "test_votes_are_softmax_shares_of_the_nearest"),
    "3.1 one near, three far": (KNN, "test_one_near_neighbour_loses_to_three_that_are_a_little_farther"),
    "3.1 a split bank": (KNN, "test_the_bank_may_be_read_in_parts_of_any_size"),
    "3.1 a permuted bank": (KNN, "test_chunks_permutation_and_scale_change_nothing"),
    "3.2 cosine factor": (HEADS, "test_the_rate_falls_along_the_published_cosine"),
    "3.2 one head of 30": (HEADS, "test_a_head_trained_among_others_equals_it_alone"),
    "3.3 solution and gradient": (LOGISTIC, "test_known_solution_and_its_gradient"),
    "3.3 doubled data": (LOGISTIC, "test_c_multiplies_the_sum_of_losses"),
    "3.4 mCE": (PUBLISHED, "test_mce_is_the_mean_of_ratios"),
    "3.4 ReaL, ObjectNet": (PUBLISHED, "test_real_and_objectnet"),
    "3.5 two APs": (MULTILABEL, "test_all_points_and_eleven_points_differ"),
    "4.1 ignored and absent": (PUBLISHED, "test_miou_drops_ignored_pixels_and_absent_classes"),
    "4.1 pooled": (PUBLISHED, "test_miou_pools_pixels_over_the_set"),
    "4.2 windows": (DENSE, "test_slide_windows"),
    "4.2 large windows": (DENSE, "test_slide_windows_of_the_large_crop"),
    "4.3 histogram": (DENSE, "test_class_shares_of_a_patch"),
    "4.3 k = 1": (DENSE, "test_a_training_patch_asked_with_k_1_gets_its_own_shares"),
    "5.1 valid pixels": (PUBLISHED, "test_depth_scores_valid_pixels_only"),
    "5.1 mean of images": (PUBLISHED, "test_rmse_is_a_mean_over_images_and_not_over_all_pixels"),
    "5.1 crops": (PUBLISHED, "test_depth_crops"),
    "5.1 bins": (DEPTH, "test_depth_of_bins"),
    "5.1 loss": (DEPTH, "test_scale_invariant_loss"),
    "5.2 normals, 8.4 poses": (PUBLISHED, "test_angles_and_poses"),
    "5.3 thresholds": (NAVI, "test_errors_are_counted_below_each_threshold"),
    "5.3 one picture twice": (NAVI, "test_one_view_beside_itself_is_found_whole"),
    "5.4 thresholds, pairs and points": (PUBLISHED, "test_correspondence"),
    "6.1 box and eigenvalue": (DENSE, "test_token_cut_boxes_the_object_with_the_known_eigenvalue"),
    "6.1 half an overlap": (PUBLISHED, "test_a_box_of_exactly_half_overlap_is_a_hit"),
    "6.1 no cut": (DENSE, "test_a_picture_of_equal_patches_has_no_cut"),
    "6.2 moved square": (PUBLISHED, "test_j_and_f_of_a_moved_square"),
    "6.2 frames": (PUBLISHED, "test_recall_and_decay_over_frames"),
    "6.2 rolled features": (DENSE, "test_propagation_follows_features_that_move"),
    "6.2 window 0": (DENSE, "test_propagation_with_window_0_and_k_1_copies_the_mask"),
    "6.3 frames": (ACTIONS, "test_sixteen_of_a_hundred_frames_are_the_published_ones"),
    "6.3 shuffled tokens": (ACTIONS, "test_tokens_may_be_shuffled_with_their_places_but_not_without"),
    "7.1 revisited": (PUBLISHED, "test_revisited_map"),
    "7.2 GAP": (PUBLISHED, "test_gap_counts_distractors_against_it"),
    "7.2 no ties at 1": (MET, "test_confidences_that_round_to_1_still_have_an_order"),
    "7.3 one positive": (PUBLISHED, "test_one_positive_scores_its_reciprocal_rank"),
    "8.1 AP": (AP, "test_ap_of_one_exact_one_false_and_one_loose_box"),
    "8.1 crowd": (AP, "test_a_crowd_takes_what_would_be_false"),
    "8.3 alignment": (PUBLISHED, "test_scale_and_shift"),
    "10.1 F1": (MULTILABEL, "test_f1_of_all_classes_together_and_of_each"),
    "10.2 canopy": (PUBLISHED, "test_canopy"),
    "12.1 to 12.4": (DENSE, "test_health_oracles"),
    "12.6 Gram drift": (DENSE, "test_gram_drift_does_not_see_rotations"),
    "13 strength 0": (LOGISTIC, "test_strength_0_changes_nothing_and_others_something"),
    "14 videos, not frames": (INTERVAL, "test_frames_of_one_video_are_no_independent_trials"),
}
NOT_BUILT = {"9 text and pictures": "zs-retrieval", "11 incomes": "fairness"}


def test_every_oracle_is_a_marked_test_and_every_marked_test_is_listed():
    marked = {}
    for file in sorted({file for file, _ in ORACLES.values()}):
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.FunctionDef) and any("mark.oracle" in ast.unparse(d) for d in node.decorator_list):
                marked[file, node.name] = True
    assert set(ORACLES.values()) == marked.keys()


def test_what_is_not_built_has_no_oracle():
    assert all(PROTOCOLS[name].score is None for name in NOT_BUILT.values())
