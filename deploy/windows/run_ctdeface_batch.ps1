<#
.SYNOPSIS
Removes the faces from every case (first-level folder) below a folder of head CT and writes the same DICOM, defaced, to another one.

.DESCRIPTION
Headers are not anonymized: never send the output to an archive that holds the originals. The input is not changed. What could not be proven
defaced is refused; its report is in <DicomRootOut>.ctdeface. A second run skips released cases.
Exit code: 0 every case is released, 1 at least one was refused, 78 something must be put right first.

.EXAMPLE
.\deploy\windows\run_ctdeface_batch.ps1 -DicomRootIn .\dicom_input -DicomRootOut .\dicom_output

.EXAMPLE
.\deploy\windows\run_ctdeface_batch.ps1 -DicomRootIn .\dicom_input -DicomRootOut .\dicom_output -NiftiRootOut .\nifti_output
#>
[CmdletBinding()]
param(
    # Folder of cases, or of one case.
    [Parameter(Mandatory = $true)][string]$DicomRootIn,
    # Where released cases go.
    [Parameter(Mandatory = $true)][string]$DicomRootOut,
    # Where defaced volumes go as NIfTI; none are written without it.
    [string]$NiftiRootOut = "",
    # Where intermediates go; beside the output otherwise.
    [string]$WorkRoot = "",
    # Cases worked on at the same time.
    [ValidateRange(1, 64)][int]$Jobs = 1,
    # More options of `ctdeface deface`, for example -Options "--profile", "bulky".
    [string[]]$Options = @()
)

Set-StrictMode -Version Latest
$ErrorActionPreference = "Stop"
$Root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$Program = Join-Path $Root ".venv\Scripts\ctdeface.exe"

if (-not (Test-Path -LiteralPath $Program -PathType Leaf)) {
    Write-Host "ctdeface: not set up yet: run .\deploy\windows\setup_ctdeface.ps1"
    exit 78
}

$Arguments = @("deface", "--dicom-root-in", $DicomRootIn, "--dicom-root-out", $DicomRootOut, "--jobs", "$Jobs")
if ($NiftiRootOut -ne "") { $Arguments += @("--nifti-root-out", $NiftiRootOut) }
if ($WorkRoot -ne "") { $Arguments += @("--work-root", $WorkRoot) }
& $Program @Arguments @Options
exit $LASTEXITCODE
