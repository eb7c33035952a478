<#
.SYNOPSIS
Mails what became wrong or right on the farm; nothing if nothing did. The task of status-task.xml runs it.

.DESCRIPTION
NOT TRIED ON WINDOWS: written by the documentation of PowerShell 5.1, and checked only as far as its command exists.

The folder keeps what was told. That is replaced once the mail was taken: news that could not be sent are sent the next
time. By hand, the news are:

  farmlease status --changed C:\ProgramData\farmlease\status\known

.EXAMPLE
.\mail-status.ps1 -To admin@example.com -From farmlease@example.com -Server mail.example.com
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $To,
    [Parameter(Mandatory)] [string] $From,
    [Parameter(Mandatory)] [string] $Server,
    [string] $Program = "$env:ProgramFiles\farmlease\Scripts\farmlease.exe",
    [string] $Folder = "$env:ProgramData\farmlease\status"
)
$ErrorActionPreference = 'Stop'

# The folder above it is SYSTEM's and the administrators' alone: install.ps1 made it so.
New-Item -ItemType Directory -Force -Path $Folder | Out-Null
$known = Join-Path $Folder 'known'
$next = Join-Path $Folder 'known.next'
Remove-Item -Force -ErrorAction SilentlyContinue $next
if (Test-Path $known) { Copy-Item $known $next }

$news = @(& $Program status --changed $next)
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
if ($news.Count -gt 0) {
    $wrong = @($news | Where-Object { $_ -like 'wrong: *' }).Count
    $right = @($news | Where-Object { $_ -like 'right: *' }).Count
    $subject = "farmlease: $wrong wrong, $right right (by $env:COMPUTERNAME)"
    Send-MailMessage -To $To -From $From -SmtpServer $Server -Subject $subject -Body ($news -join "`r`n") `
        -Encoding ([System.Text.Encoding]::UTF8)
}
Move-Item -Force $next $known
